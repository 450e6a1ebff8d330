"""`python -m gateway` is `interlock`."""

from gateway.cli.main import main

if __name__ == "__main__":
    main()
