"""Running on one machine: the runner, its progress, its output folder, its log, and what it reports."""
