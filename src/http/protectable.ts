/** Routes outside the API that an operator may want a key for. */

export const PROTECTABLE = ["health", "metrics", "status"] as const
export type Protected = (typeof PROTECTABLE)[number]
