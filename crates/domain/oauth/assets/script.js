"use strict";
// What the pages need a program for: the passkey ceremonies. Everything else works without.
