#![no_main]

tidefs_fuzz::target!(part);
