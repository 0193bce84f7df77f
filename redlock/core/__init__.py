"""The algorithm: no clock, no socket, no thread and no random source is imported in this
package."""
