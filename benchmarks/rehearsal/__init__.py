"""The paper's programme at its real row counts, with short clips and a tiny model: what size costs, stage by stage."""
