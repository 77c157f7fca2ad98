/** Property tests with few runs, always the same ones: a mutant is met by many tests, and one that dies by chance alone
 * would come and go. */
import fc from "fast-check"

fc.configureGlobal({ numRuns: 30, seed: 1, endOnFailure: true })
