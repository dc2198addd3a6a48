"""What people look at: tables, comparisons, live views. Reads results, changes nothing."""
