#![no_main]

tidefs_fuzz::target!(batch);
