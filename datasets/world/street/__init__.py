"""The street of `demo-street`: houses, roads, trees and cars, their textures, and the drive."""
