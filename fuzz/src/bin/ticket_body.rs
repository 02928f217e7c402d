#![no_main]

tidefs_fuzz::target!(ticket_body);
