/** What the parts of a schema's translation share: rules, names, and errors that say where. */
import type { Bounds } from "../../engine/constraint/counted.ts"
import type { UserError } from "../../errors.ts"
import type { Schema } from "./schema-size.ts"

export interface SchemaParts {
  /** Body of the rule for a schema inside an object or array. */
  inner(schema: unknown, at: string): string
  rule(name: string, body: string): void
  /** A name that no rule has yet. */
  name(stem: string): string
  /** A rule of a new name, which is answered. */
  named(stem: string, body: string): string
  /** What stands behind the opening quotation mark of a string of bounded length. */
  mark(bounds: Bounds, at: string): string
  /** A count that a schema gives; null: it gives none. */
  count(schema: Schema, key: string, at: string, most: number): number | null
  itemCount(schema: Schema, key: string, at: string): number | null
  wrong(at: string, why: string): UserError
  /** What a schema may say, and no grammar here keeps. */
  unsupported(at: string, what: string): UserError
}
