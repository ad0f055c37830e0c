-- MLflow keeps its users apart from the runs.
CREATE DATABASE mlflow_users OWNER mlflow;
