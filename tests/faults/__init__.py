"""Each fault of the table, made on purpose at real processes and measured. `make faults` runs them."""
