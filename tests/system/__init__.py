"""System tests: real processes of minato between raw-socket clients and scripted origins, all on loopback."""
