/** How large schemas may be. Looked at before anything else, and no further than the limits: the event loop waits. */

export type Schema = Record<string, unknown>

/** Values in all schemas of one grammar, and characters of their texts and names. */
const MOST_VALUES = 30_000
const MOST_CHARACTERS = 300_000
/** Levels of objects and arrays: of a schema, and of the constants in it. */
const MOST_LEVELS = 300

export class SchemaSize {
  #values = 0
  #characters = 0

  /** Counts a schema to those before it. What is wrong with it, or null. */
  fault(schema: unknown): string | null {
    let level = [schema]
    for (let depth = 0; level.length > 0; depth++) {
      if (depth > MOST_LEVELS) return `it is nested more than ${MOST_LEVELS} levels deep`
      const next: unknown[] = []
      for (const value of level) {
        const names = isObject(value) ? Object.keys(value) : []
        const inside = Array.isArray(value) ? value : names.map((name) => (value as Schema)[name])
        this.#values += inside.length
        for (const text of typeof value === "string" ? [value] : names) this.#characters += text.length
        if (this.#values > MOST_VALUES) return `it is too large: at most ${MOST_VALUES} values`
        if (this.#characters > MOST_CHARACTERS)
          return `it is too large: at most ${MOST_CHARACTERS} characters`
        for (const one of inside) next.push(one)
      }
      level = next
    }
    return null
  }
}

export function isObject(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}
