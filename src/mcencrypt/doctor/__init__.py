"""What `mcencrypt doctor` looks at: one module per topic, each a function that yields findings.

Checks see the machine through `machine.Machine` alone, so that recorded files and outputs can stand in for it.
"""
