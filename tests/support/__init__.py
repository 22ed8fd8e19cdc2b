"""Small nets and training loops that the tests share."""
