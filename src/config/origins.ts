/** Origins of web pages, as browsers name them. */
import { UserError } from "../errors.ts"

/** Of any origin. */
export const ANY_ORIGIN = "*"

/** An origin as it stands in the header of that name. Throws UserError for what is none. */
export function parseOrigin(text: string): string {
  if (text === ANY_ORIGIN || text === "null") return text
  let origin: string | null = null
  try {
    origin = new URL(text).origin
  } catch {}
  if (origin !== null && origin !== "null" && (text === origin || text === `${origin}/`)) return origin
  throw new UserError(
    `"${text.slice(0, 100)}" is no origin; write scheme, host and port, like https://app.example.com, or *`,
  )
}
