"""General benchmarks: knowledge and skills that training should not degrade."""
