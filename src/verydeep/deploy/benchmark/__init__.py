"""`verydeep benchmark`: speed beside other libraries, measured in turns."""
