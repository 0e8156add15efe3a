namespace Tensormesh.Simulation.Tests;

/// <summary>The process died here: nothing that it only remembered is left.</summary>
internal sealed class DiedException() : Exception("the process died here");

/// <summary>How many effects a process has left to live for. Asked before and after each: of a request, a change or a payment.</summary>
internal sealed class Mortality
{
    private int left = int.MaxValue;

    public void DieAfter(int effects) => left = effects;

    public void Spare() => left = int.MaxValue;

    /// <exception cref="DiedException">This was the last.</exception>
    public void Step()
    {
        if (left == int.MaxValue) return;
        if (left-- > 0) return;
        left = int.MaxValue;
        throw new DiedException();
    }
}
