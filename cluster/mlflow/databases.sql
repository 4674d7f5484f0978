-- Once, when PostgreSQL's disk is empty: users and permissions live apart from the runs.
CREATE DATABASE mlflow_auth OWNER mlflow;
