"""``python -m mtl_tickets.cli``"""

from mtl_tickets.cli.entry import main

if __name__ == "__main__":
    main()
