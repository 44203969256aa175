"""``python -m mcencrypt``: the command line."""

from mcencrypt.cli import main

if __name__ == "__main__":
    main()
