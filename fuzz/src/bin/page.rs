#![no_main]

tidefs_fuzz::target!(page);
