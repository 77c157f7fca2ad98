/** For JSON.stringify: numbers of results with six digits, which is more than was measured. */
export function rounded(_key: string, value: unknown): unknown {
  return typeof value === "number" ? Number(value.toPrecision(6)) : value
}
