#![no_main]

tidefs_fuzz::target!(manifest);
