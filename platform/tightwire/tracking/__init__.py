"""What a run records: its folder, its plots, and the MLflow tracker."""
