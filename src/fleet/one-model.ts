/** All that a gateway is before answers as one model: a stream that one loses goes on at another, and a client could not tell
 * whose answer it has. */

/** One that is ready. */
export interface Serving {
  name: string
  /** As clients call it. */
  model: string
}

/** Why one with this model cannot be used beside it; null: it can. */
export function otherModel(model: string, beside: Serving | null): string | null {
  if (beside === null || beside.model === model) return null
  return `it serves ${model}, and ${beside.name} serves ${beside.model}; give both one name (model=NAME:${model}) if they are to answer as one`
}
