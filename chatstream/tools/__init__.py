"""The tools that models may call, from all sources. `generations` carries the calls out."""
