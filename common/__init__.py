"""What both frameworks share: data, starting weights, schedule, metrics, statistics, report. Imports no framework."""
