"""CloudEvents 1.0: sent by people, programs and runs, stored once, and given to the runs and schedules that wait for them."""
