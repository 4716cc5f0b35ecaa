"""The declaration and everything derived from it: contracts, envelope, names, manifest, audit, errors, clients."""
