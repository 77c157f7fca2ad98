/** Readers of option values, mostly numbers; what they refuse becomes one line by commander and exit code 2. */
import { InvalidArgumentError } from "commander"

export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = numberOf(text)
    if (Number.isInteger(value) && value >= min && value <= max) return value
    throw new InvalidArgumentError(`It must be a whole number between ${min} and ${max}.`)
  }
}

/** A finite number within [min, max]. */
export function numberIn(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = numberOf(text)
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`It must be a number from ${min} to ${max}.`)
  }
}

const numberOf = (text: string): number => (text.trim() === "" ? Number.NaN : Number(text))

export const port = wholeNumber(0, 65_535)

export function fraction(text: string): number {
  const value = numberOf(text)
  if (value >= 0 && value <= 2) return value
  throw new InvalidArgumentError("It must be a number between 0 and 2, for example 0.2.")
}

/** "a,b": some of these. */
export function listOf<Name extends string>(known: readonly Name[]): (text: string) => Name[] {
  return (text) =>
    text.split(",").map((part) => {
      const name = known.find((each) => each === part.trim())
      if (name !== undefined) return name
      throw new InvalidArgumentError(`It must be of ${known.join(", ")}, with commas between.`)
    })
}

const SCALE: Record<string, number> = { "": 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 }

/** "8m" → 8388608. */
export function byteSize(text: string): number {
  const match = /^(\d+)\s*([kmg]?)b?$/i.exec(text.trim())
  const value = match === null ? Number.NaN : Number(match[1]) * SCALE[match[2]!.toLowerCase()]!
  if (value >= 1024 && value <= 2 ** 30) return value
  throw new InvalidArgumentError("It must be between 1k and 1g, for example 8m.")
}

/** http://… or https://…, with a host. */
export function httpUrl(text: string): string {
  if (URL.canParse(text) && /^https?:$/.test(new URL(text).protocol)) return text
  throw new InvalidArgumentError("It must be a URL, for example http://127.0.0.1:4318.")
}

/** "lookup", "off", or "draft=<model>" with a model as after --model. */
export function drafter(text: string): string {
  if (text === "lookup" || text === "off" || /^draft=\S/.test(text)) return text
  throw new InvalidArgumentError("It must be lookup, off, or draft=<model>, for example draft=tiny-draft.")
}
