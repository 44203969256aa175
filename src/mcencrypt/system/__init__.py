"""What a machine gets besides the program: unit, configuration, completion, man page; and how it gets rid of them."""
