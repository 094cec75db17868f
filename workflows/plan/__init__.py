"""What a step would cost before it runs: work measured on a sample, laid out on this machine or on a cluster shape."""
