"""`python -m wal`: what can be done with a log from outside."""

from wal.tools import main

if __name__ == "__main__":
    main()
