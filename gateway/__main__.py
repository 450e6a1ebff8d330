"""`python -m gateway` is `interlock`."""

from gateway.cli import main

if __name__ == "__main__":
    main()
