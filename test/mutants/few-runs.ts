/** Property tests with few runs, always the same ones: a mutant that died by chance alone would come and go. */
import fc from "fast-check"

fc.configureGlobal({ numRuns: Number(process.env.PROPERTY_RUNS), seed: 1, endOnFailure: true })
