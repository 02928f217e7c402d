#![no_main]

tidefs_fuzz::target!(record);
