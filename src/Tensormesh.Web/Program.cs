Console.WriteLine("tensormesh-web");
