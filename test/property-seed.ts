/** PROPERTY_SEED=n: property tests draw what they drew before. CI sets it by the commit's files (.ci/run): each commit meets draws
 * of its own, and a commit that passed once is not turned down by chance. */
import fc from "fast-check"

fc.configureGlobal({ seed: Number(process.env.PROPERTY_SEED) })
