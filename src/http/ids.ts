/** Names of the parts of answers. */
import { randomInt } from "node:crypto"

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
const LENGTH = 24

/** Of no other part of any answer: clients keep parts of many answers apart by it. */
export function newId(prefix: string): string {
  const letters = Array.from({ length: LENGTH }, () => LETTERS[randomInt(LETTERS.length)])
  return `${prefix}_${letters.join("")}`
}
