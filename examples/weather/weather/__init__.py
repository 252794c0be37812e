"""Two cities' temperatures: stages that load, check, fit, join and draw them."""
