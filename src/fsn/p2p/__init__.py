"""What goes over the wire (`wire`) and over what it goes (`transport`)."""
