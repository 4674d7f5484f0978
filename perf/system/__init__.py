"""The whole system under load and failures: data, worker pools, jobs, killed workers, tracking outages."""
