namespace Tensormesh.Simulation.Tests;

/// <summary>Something that can happen next.</summary>
/// <param name="Weight">How often, next to the others.</param>
internal sealed record Act(int Weight, string Name, Func<Task> Do);
