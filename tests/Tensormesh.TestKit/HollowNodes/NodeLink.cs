namespace Tensormesh.TestKit;

/// <summary>
/// The line between a hollow kubelet and the API server. While it is cut, calls wait; once <see cref="CutAsync"/> has returned, none is on its way.
/// </summary>
internal sealed class NodeLink
{
    private readonly Lock _lock = new();
    private TaskCompletionSource _open = Completed();
    private TaskCompletionSource _drained = Completed();
    private int _calls;

    public bool IsOpen
    {
        get
        {
            lock (_lock)
            {
                return _open.Task.IsCompleted;
            }
        }
    }

    /// <summary>Waits for the line and takes it; <see cref="Leave"/> must follow.</summary>
    public async Task EnterAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            Task open;
            lock (_lock)
            {
                open = _open.Task;
                if (open.IsCompleted)
                {
                    if (_calls++ == 0)
                    {
                        _drained = Pending();
                    }

                    return;
                }
            }

            await open.WaitAsync(cancellationToken);
        }
    }

    public void Leave()
    {
        lock (_lock)
        {
            if (--_calls == 0)
            {
                _drained.SetResult();
            }
        }
    }

    public Task CutAsync()
    {
        lock (_lock)
        {
            if (_open.Task.IsCompleted)
            {
                _open = Pending();
            }

            return _drained.Task;
        }
    }

    public void Mend()
    {
        lock (_lock)
        {
            _open.TrySetResult();
        }
    }

    private static TaskCompletionSource Pending() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    private static TaskCompletionSource Completed()
    {
        var source = Pending();
        source.SetResult();
        return source;
    }
}
