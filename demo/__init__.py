"""The main job on real data: three airports' flights of 2013, from producers to answered questions, with an audit."""
