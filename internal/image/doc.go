// Package image makes, changes and copies raw disk and file-system images so that
// nothing can be lost: each change ends in the old or in the new state whenever it
// is killed, and none is begun on an image that somebody else uses.
//
// A verb is made ready first: Grow, Shrink and their like open the image, take hold
// of it, look at what it is and decide how, which is the [Plan]. Then [Work.Do]
// carries exactly that out.
package image
