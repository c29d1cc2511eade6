// Reads what a caller handed in, one element after the other, as far as there is room for them.

/** @internal */
export interface Reader<Element> {
  /** How long a source is read at a stretch: one that is slow must not hold up results, nor the event loop. */
  readonly readsForMs: number
  hasRoom(): boolean
  take(element: Element): void
  /** What was taken may go on: no more is at hand. */
  flush(): void
  /** There are no more. */
  end(): void
  /** The source threw, or what it gave did. */
  fail(thrown: unknown): void
}

/** @internal */
export class Source<Element> {
  readonly #reader: Reader<Element>
  readonly #iterator: Iterator<Element> | AsyncIterator<Element>
  readonly #isAsync: boolean
  /** It was asked for an element and has not answered yet. */
  #isAsked = false
  #isFlushing = false
  #readsOnSoon = false
  /** It ended, threw, or was left. */
  #isOver = false

  constructor(elements: Iterable<Element> | AsyncIterable<Element>, reader: Reader<Element>) {
    this.#reader = reader
    this.#isAsync = Symbol.asyncIterator in elements
    this.#iterator =
      Symbol.asyncIterator in elements ? elements[Symbol.asyncIterator]() : elements[Symbol.iterator]()
  }

  /** Goes on until there is no room. */
  read(): void {
    if (this.#isAsync) {
      void this.#readAsync()
    } else {
      this.#readSync()
    }
  }

  /** Tells the source that nothing more is wanted, as a loop that is left does. */
  async leave(): Promise<void> {
    if (this.#isOver) {
      return
    }
    this.#isOver = true
    if (!this.#isAsked) {
      await this.#iterator.return?.()
    } else if (this.#isAsync) {
      // A generator answers only when what it waits for has come, which may be never.
      Promise.resolve(this.#iterator.return?.()).catch(() => {})
    }
    // A generator cannot be closed while it runs: `#readSync` does it.
  }

  #readSync(): void {
    const iterator = this.#iterator as Iterator<Element>
    const until = performance.now() + this.#reader.readsForMs
    while (this.#wantsMore()) {
      if (performance.now() > until) {
        this.#readOnSoon()
        break
      }
      try {
        this.#isAsked = true
        const step = iterator.next()
        this.#isAsked = false
        this.#take(step)
        if (this.#isOver && !step.done) {
          iterator.return?.()
        }
      } catch (thrown) {
        this.#fail(thrown)
      }
    }
    this.#reader.flush()
  }

  #readOnSoon(): void {
    if (!this.#readsOnSoon) {
      this.#readsOnSoon = true
      setImmediate(() => {
        this.#readsOnSoon = false
        this.#readSync()
      })
    }
  }

  async #readAsync(): Promise<void> {
    while (this.#wantsMore()) {
      try {
        this.#isAsked = true
        const step = await this.#iterator.next()
        this.#isAsked = false
        this.#take(step)
      } catch (thrown) {
        this.#fail(thrown)
      }
      this.#flushSoon()
    }
  }

  /** Its elements come one after the other: what it has at hand goes on together. */
  #flushSoon(): void {
    if (!this.#isFlushing) {
      this.#isFlushing = true
      setImmediate(() => {
        this.#isFlushing = false
        this.#reader.flush()
      })
    }
  }

  #wantsMore(): boolean {
    return !this.#isOver && !this.#isAsked && this.#reader.hasRoom()
  }

  #take(step: IteratorResult<Element>): void {
    if (typeof step !== 'object' || step === null) {
      throw new TypeError(`Iterator result ${String(step)} is not an object`)
    }
    if (!step.done) {
      this.#reader.take(step.value)
    } else if (!this.#isOver) {
      this.#isOver = true
      this.#reader.flush()
      this.#reader.end()
    }
  }

  #fail(thrown: unknown): void {
    const wasLeft = this.#isOver
    // What `next` threw has closed the source; what its element threw has not.
    if (this.#isAsked) {
      this.#isAsked = false
      this.#isOver = true
    }
    if (!wasLeft) {
      this.#reader.fail(thrown)
    }
  }
}
