"""What `Trainer` and `DPOTrainer` do not have: packing, mixtures, budgets, plans and throughput."""
